"""From texts to results over any engine: embeddings, labels, tags or answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tilewright.sw.arguments import instance, shown
from tilewright.sw.errors import InputError
from tilewright.sw.graph.model import Model, load_model
from tilewright.sw.models.bert import Bert, check_ids, largest_weight
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32
from tilewright.sw.models.heads import Head, Result, Span, SpanFinder
from tilewright.sw.models.tokenize import Encoded, Tokenizer
from tilewright.sw.pipeline.engine import Engine, ReferenceEngine
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.quantize import Tell, quantize_model

if TYPE_CHECKING:
    from tilewright.sw.driver.device import Device
    from tilewright.sw.program import Executable

Text = str | tuple[str, str]
"""One text, or a pair: two sentences, or a question and the context that answers it."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What came of one text.

    Attributes
    ----------
    text : str or pair of str
    tokens : Encoded
        Its tokens; rows of `hidden` and of token logits are theirs.
    hidden : ndarray of float32, [S, hidden]
        The encoder's output.
    result : ndarray, Classes, TokenClasses or Span
        What the head made of it; a sentence embedding [hidden] without a head.
    """

    text: Text
    tokens: Encoded
    hidden: F32
    result: Result

    @property
    def answer(self) -> str:
        """The characters of the context a span stands for.

        Raises
        ------
        ModelError
            If the result is no span.
        """
        if not isinstance(self.result, Span) or not isinstance(self.text, tuple):
            raise ModelError("only question answering gives an answer")
        start, end = self.tokens.spans[self.result.start, 0], self.tokens.spans[self.result.end, 1]
        return self.text[1][int(start) : int(end)]


class Pipeline:
    """A model on an engine.

    Parameters
    ----------
    model : Bert
        For its configuration.
    tokenizer : Tokenizer
    head : Head
        Runs on the host, in fp32.
    quantized : QModel
        For the embedding tables, and the format of the engine's output.
    engine : Engine, optional
        The golden functions by default.
    left_out : str, optional
        Architecture of the model where its own head is not run.

    Raises
    ------
    ModelError
        When it is called: a text that is empty, too long, or has a token the model does not know.

    Examples
    --------
    >>> import tilewright as tw
    >>> model = tw.load("minilm")
    >>> (output,) = model(["A cat sleeps."])
    >>> output.hidden.shape, output.hidden.dtype  # tokens, the special ones included
    ((6, 384), dtype('float32'))
    >>> with tw.Device("iss", tw.preset("default")) as device:  # doctest: +SKIP
    ...     (same,) = model.on(device)(["A cat sleeps."])
    """

    def __init__(
        self,
        *,
        model: Bert,
        tokenizer: Tokenizer,
        head: Head,
        quantized: QModel,
        engine: Engine | None = None,
        left_out: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.head = model, tokenizer, head
        self.quantized, self.left_out = quantized, left_out
        self.engine: Engine = ReferenceEngine(quantized) if engine is None else engine

    @classmethod
    def load(
        cls,
        where: str | Path | Model,
        *,
        outputs: Sequence[str] | None = None,
        precision: str = "w8a8",
        tell: Tell | None = None,
    ) -> Pipeline:
        """Load a model, calibrate and quantize it; it runs the golden functions until told.

        Parameters
        ----------
        where : str, Path or Model
        outputs : sequence of str, optional
            As `tilewright.sw.graph.model.load_model`.
        precision : str
            Of `tilewright.sw.quantize.quantize.quantize`.
        tell : callable, optional
            Told the progress of calibration and quantization.

        Raises
        ------
        ModelError
            As reading, tokenizer and quantization say.
        """
        instance("precision", precision, str)
        model = where if isinstance(where, Model) else load_model(where, outputs)
        quantized = quantize_model(model.bert, model.folder, precision=precision, tell=tell)
        return cls(
            model=model.bert,
            tokenizer=Tokenizer(model.folder),
            head=model.head,
            quantized=quantized,
            left_out=model.left_out,
        )

    def on(
        self,
        device: Device,
        *,
        sequence: int | None = None,
        executable: Executable | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Pipeline:
        """The same model on a machine, whose programs are compiled when they are needed first.

        Parameters
        ----------
        device : Device
        sequence : int, optional
            Rows of every program; else each text takes the next multiple of 16.
        executable : Executable, optional
            A program of this model to be used instead of compiling; it has its own rows.
        progress : callable, optional
            Told the texts done and their number.

        Raises
        ------
        ModelError
            If the program is of another model.
        CompileError
            If the model has no positions for so many rows.
        """
        # The golden functions need neither compiler nor driver.
        from tilewright.sw.compiler.model import check_sequence
        from tilewright.sw.pipeline.device import DeviceEngine, check_model

        if executable is not None:
            check_model(executable, self.model, self.quantized)
        if sequence is not None:
            check_sequence(self.quantized, sequence)
        moved = copy.copy(self)
        moved.engine = DeviceEngine(
            self.quantized, device, sequence=sequence, executable=executable, progress=progress
        )
        return moved

    @property
    def limit(self) -> int:
        """Longest text in tokens, special ones included."""
        limits = (self.model.config.positions, self.tokenizer.limit, self.engine.limit)
        return min(limit for limit in limits if limit is not None)

    def tokens(self, texts: Sequence[Text], *, truncate: bool = False) -> list[Encoded]:
        """Tokens of each text, all of them checked before anything runs.

        Raises
        ------
        InputError
            If it is no list of texts.
        ModelError
            Naming the text: empty, too long, a token the model has no embedding for; a single text
            where the head needs a question and a context.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise InputError(f"texts: expected a list of texts, got {shown(texts)}")
        found = []
        for number, text in enumerate(texts, start=1):
            parts = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            if not all(isinstance(part, str) for part in parts):
                raise InputError(f"text {number}: expected a text or a pair, got {shown(text)}")
            first, second = (*parts, None)[:2]
            try:
                if second is None and isinstance(self.head, SpanFinder):
                    raise ModelError("an answer needs a pair: a question and a context")
                one = self.tokenizer.encode(first, second, limit=self.limit, truncate=truncate)
                found.append(self._checked(one))
            except ModelError as error:
                raise ModelError(f"text {number}: {error}") from error
        return found

    def _checked(self, tokens: Encoded) -> Encoded:
        """Tokens the model has embeddings for; of one type where it knows no other."""
        config = self.model.config
        if config.types == 1:
            tokens = replace(tokens, types=np.zeros_like(tokens.types))
        check_ids(tokens.ids, config, tokens.types)
        if config.padding is not None and (tokens.ids == config.padding).any():
            raise ModelError(f"the text holds the padding token {config.padding}, without position")
        return tokens

    def hidden(self, tokens: Sequence[Encoded]) -> list[F32]:
        """The encoder's output of each text, [S, hidden]."""
        batch = [self.quantized.embedding.look_up(one.ids, one.types) for one in tokens]
        lengths = [len(one) for one in tokens]
        state = self.quantized.layers[-1].output
        found = self.engine.encode(batch, lengths)
        return [state.to_real(y[:n]) for y, n in zip(found, lengths, strict=True)]

    def __call__(self, texts: Sequence[Text], *, truncate: bool = False) -> list[Output]:
        """Run a batch of texts of any lengths.

        Parameters
        ----------
        texts : sequence of str or pair of str
        truncate : bool
            Cut what is longer than `limit` instead of refusing it.

        Raises
        ------
        ModelError
            As `tokens`.
        """
        tokens = self.tokens(texts, truncate=truncate)
        return [
            Output(text=text, tokens=one, hidden=hidden, result=apply_head(self.head, one, hidden))
            for text, one, hidden in zip(texts, tokens, self.hidden(tokens), strict=True)
        ]


def apply_head(head: Head, tokens: Encoded, hidden: F32) -> Result:
    """What a head makes of hidden states [S, hidden]; answers lie in the second text.

    Raises
    ------
    ModelError
        If it overflows fp32.
    """
    try:
        with np.errstate(over="raise", invalid="raise"):
            if isinstance(head, SpanFinder):
                return head(hidden, len(tokens), tokens.second & ~tokens.special)
            return head(hidden, len(tokens))
    except FloatingPointError as error:
        largest = largest_weight({"head": head})
        raise ModelError(f"the head overflows fp32; its largest weight is {largest}") from error
