"""From texts to results over any engine: embeddings, labels, tags or answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.graph.model import Model, load_model
from tilewright.sw.models.bert import Bert, check_ids
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32
from tilewright.sw.models.heads import Head, Result, Span, SpanFinder
from tilewright.sw.models.tokenize import Encoded, Tokenizer
from tilewright.sw.pipeline.engine import I16, Engine, ReferenceEngine
from tilewright.sw.quantize.formats import QEmbedding, QModel
from tilewright.sw.quantize.quantize import quantize_model

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
    ) -> None:
        self.model, self.tokenizer, self.head = model, tokenizer, head
        self.quantized = quantized
        self.engine: Engine = ReferenceEngine(quantized) if engine is None else engine

    @classmethod
    def load(
        cls,
        where: str | Path | Model,
        *,
        precision: str = "w8a8",
    ) -> Pipeline:
        """Load a model, calibrate and quantize it; it runs the golden functions until told.

        Parameters
        ----------
        where : str, Path or Model
            As `tilewright.sw.graph.model.load_model`.
        precision : str
            Of `tilewright.sw.quantize.quantize.quantize`.

        Raises
        ------
        ModelError
            As reading, tokenizer and quantization say.
        """
        model = where if isinstance(where, Model) else load_model(where)
        quantized = quantize_model(model.bert, model.folder, precision=precision)
        return cls(
            model=model.bert,
            tokenizer=Tokenizer(model.folder),
            head=model.head,
            quantized=quantized,
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
        positions = self.model.config.positions
        return positions if self.engine.limit is None else min(positions, self.engine.limit)

    def tokens(self, texts: Sequence[Text], *, truncate: bool = False) -> list[Encoded]:
        """Tokens of each text, all of them checked before anything runs.

        Raises
        ------
        ModelError
            Naming the text: empty, too long, a token the model has no embedding for; a single text
            where the head needs a question and a context.
        """
        if isinstance(texts, str):
            raise ModelError("texts must be a list, not one text")
        found = []
        for number, text in enumerate(texts, start=1):
            first, second = text if isinstance(text, tuple) else (text, None)
            try:
                if second is None and isinstance(self.head, SpanFinder):
                    raise ModelError("an answer needs a pair: a question and a context")
                one = self.tokenizer.encode(first, second, limit=self.limit, truncate=truncate)
                check_ids(one.ids, self.model.config, one.types)
            except ModelError as error:
                raise ModelError(f"text {number}: {error}") from error
            found.append(one)
        return found

    def hidden(self, tokens: Sequence[Encoded]) -> list[F32]:
        """The encoder's output of each text, [S, hidden]."""
        batch = [look_up(self.quantized.embedding, one.ids, one.types) for one in tokens]
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
    """What a head makes of hidden states [S, hidden]; answers lie in the second text."""
    if isinstance(head, SpanFinder):
        return head(hidden, len(tokens), (tokens.types == 1) & ~tokens.special)
    return head(hidden, len(tokens))


def look_up(
    embedding: QEmbedding,
    ids: npt.NDArray[np.integer[Any]],
    types: npt.NDArray[np.integer[Any]],
) -> I16:
    """``z = SAT16(word + position + type)``: ids and types [S] -> s16 [S, hidden].

    The same as `QEmbedding.look_up` where every type is 0.
    """
    z = embedding.word[ids].astype(np.int32) + embedding.position[: len(ids)]
    return np.clip(z + embedding.type[types], -32768, 32767).astype(np.int16)
