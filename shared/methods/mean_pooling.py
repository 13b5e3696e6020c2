"""Mean pooling: an encoder whose output is one vector per text."""

from __future__ import annotations

import torch


class MeanPooling(torch.nn.Module):
    """An encoder or decoder that outputs the mean of its last hidden states, without padding.

    Sentence encoders are trained for this pooling (Reimers and Gurevych 2019, "Sentence-BERT",
    section 3). `trainer.predict` returns the vectors as ``predictions``, of shape (rows, width).

    Parameters
    ----------
    encoder : PreTrainedModel
        From `shared.models.load_encoder`.
    """

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Pool rows of shape (rows, length); a row of nothing but padding gives zeros."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state  # (rows, length, width)
        mask = attention_mask[..., None].to(hidden.dtype)  # (rows, length, 1)
        # The Trainer takes the output named "logits" for the predictions.
        return {"logits": (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)}
