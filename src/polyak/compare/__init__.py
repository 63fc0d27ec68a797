"""`polyak compare`: several runs beside each other, over the seeds that they differ in."""
