"""What is recorded of steps: measured in the compiled step by `polyak.keras.recorder`, and written to the folder of the run."""

from polyak.train.recording.recording import Recording

__all__ = ["Recording"]
