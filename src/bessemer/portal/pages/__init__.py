"""The pages: each module turns what a desk mirrors into a `live.Page`. They are synchronous and touch nothing else."""
