"""The optimizer in somebody else's loop: Hugging Face Accelerate, which wraps, schedules, accumulates and saves it."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from polyak.torch import Momentum

# Of Accelerate itself, about torch's own functions that it calls.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_accelerate(tmp_path: Path) -> None:
    from accelerate import Accelerator

    def run(accelerator: Accelerator, epochs: range) -> tuple[torch.Tensor, float]:
        """Train, beginning with what the epoch before saved; the state after each epoch is saved."""
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
        optimizer = Momentum(model.named_parameters(), lr=0.1, momentum=0.9, nesterov=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
        model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, data, scheduler)
        if epochs.start:
            accelerator.load_state(str(tmp_path / str(epochs.start - 1)))
        loss = torch.tensor(0.0)
        for epoch in epochs:
            for inputs, targets in data:
                with accelerator.accumulate(model):
                    loss = torch.nn.functional.mse_loss(model(inputs), targets)
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            accelerator.save_state(str(tmp_path / str(epoch)))
        weights = accelerator.unwrap_model(model).weight.detach().clone()
        accelerator.free_memory()
        return weights, loss.item()

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    whole, loss = run(accelerator, range(2))
    assert loss < 0.5  # from 3 at the start
    resumed, _ = run(accelerator, range(1, 2))
    assert torch.equal(whole, resumed)
