"""Models in: fetching pinned artefacts, BERT weights and fp32 forward, tokenizing, text."""
