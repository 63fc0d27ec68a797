"""The `polyak train` command: tasks, options, fitting, and the folder of a run.

Nothing here imports Keras before `polyak.train.backends.use` has chosen what it computes with.
"""
