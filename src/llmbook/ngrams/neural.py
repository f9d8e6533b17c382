"""The first neural language model, of Bengio et al. (2003): word vectors in, one hidden layer, a softmax out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmbook.ngrams.counts import START, FloatArray, Sequences, context_windows, make_stream
from llmbook.tokenization import Vocabulary


class NeuralLM(nn.Module):
    """The neural probabilistic language model of Bengio, Ducharme, Vincent & Jauvin (2003), equation 1:

    logits = b₂ + W₂ tanh(b₁ + W₁ x) + W₃ x,    x = [C(w_{t−n+1}); …; C(w_{t−1})]

    C is the table of word vectors, ``embedding`` (V, m), x their concatenation ((n−1)·m,); W₁, b₁ are the
    ``hidden`` layer's, W₂, b₂ the ``output``'s; W₃ goes past the hidden layer and is there only if `direct` is
    true. (The paper's letters for W₁, b₁, W₂, b₂, W₃ are H, d, U, b, W.)
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        order: int,
        embedding_dim: int = 30,
        hidden: int = 50,
        direct: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("order", order, 2),
            ("embedding_dim", embedding_dim, 1),
            ("hidden", hidden, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.vocab, self.order = vocabulary, order
        inputs, size = (order - 1) * embedding_dim, len(vocabulary)
        self.embedding = nn.Embedding(size, embedding_dim)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, size)
        self.direct = nn.Linear(inputs, size, bias=False) if direct else None
        for name, parameter in self.named_parameters():
            scale = 1.0 if name.startswith("embedding") else parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.0
            nn.init.normal_(parameter, std=scale, generator=generator)
        with torch.no_grad():
            self.output.bias[vocabulary.token_to_id(START)] = -torch.inf  # never predicted; its gradient is 0

    def forward(self, contexts: Tensor) -> Tensor:
        """Logits (B, V) of the token after each context (B, n − 1) of ids; −∞ for ``<s>``."""
        x = self.embedding(contexts).flatten(1)  # (B, (n−1)·m)
        logits = self.output(torch.tanh(self.hidden(x)))  # (B, V)
        if self.direct is not None:
            logits = logits + self.direct(x)
        return logits

    def fit(
        self,
        sequences: Sequences,
        *,
        epochs: int = 1,
        batch_size: int = 512,
        lr: float = 3e-3,
        generator: torch.Generator,
    ) -> list[float]:
        """Minimise the cross-entropy with Adam, the rate falling to 0; gives each epoch's loss in nats."""
        contexts, words = self._windows(sequences)
        optimizer = torch.optim.Adam(self.parameters(), lr=lr, fused=True)
        batches = [
            (epoch, batch)
            for epoch in range(epochs)
            for batch in torch.randperm(len(words), generator=generator).split(batch_size)
        ]
        losses = [0.0] * epochs
        for step, (epoch, batch) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / len(batches))
            loss = F.cross_entropy(self(contexts[batch]), words[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses[epoch] += loss.item() * len(batch) / len(words)
        return losses

    @torch.no_grad()
    def logprobs(self, sequences: Sequences, batch_size: int = 4096) -> FloatArray:
        """ln p(token | the order − 1 before it), in nats, for every token of every sequence (N,)."""
        contexts, words = self._windows(sequences)
        parts = zip(contexts.split(batch_size), words.split(batch_size), strict=True)
        losses = [F.cross_entropy(self(context), word, reduction="none") for context, word in parts]
        return -torch.cat(losses).double().cpu().numpy()

    def _windows(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        contexts, words = context_windows(make_stream(sequences, self.vocab, self.order), self.order)
        device = self.embedding.weight.device
        return torch.tensor(contexts, device=device), torch.tensor(words, device=device)
