"""Pictures of what was recorded. Nothing here computes what a run did not record."""
