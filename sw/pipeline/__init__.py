"""Text in, results out: tokens, embedding look-up, an engine for the encoder, a head."""
