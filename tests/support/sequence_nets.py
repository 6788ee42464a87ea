"""Networks of words and of sounds, as people bring them."""

from torch import Tensor, nn


class Written(nn.Module):
    """Words of text: an embedding, an LSTM in both directions, a class for each word."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.words = nn.Embedding(30, 12, padding_idx=0)
        self.body = nn.LSTM(12, 20, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(40, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, words, 7) of tokens (batch, words)."""
        logits: Tensor = self.head(self.body(self.words(tokens))[0])
        return logits


class Spoken(nn.Module):
    """Frames of sound: convolutions over time, a GRU, and a class for the whole of it."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.ears = nn.Sequential(
            nn.Conv1d(8, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(16, 24, 3), nn.ReLU()
        )
        self.body, self.head = nn.GRU(24, 18, batch_first=True), nn.Linear(18, 5)

    def forward(self, sound: Tensor) -> Tensor:
        """Return logits (batch, 5) of sound (batch, 8, frames)."""
        _, last = self.body(self.ears(sound).transpose(1, 2))
        logits: Tensor = self.head(last[-1])
        return logits
