"""Devices, files and time: sharding, processes, checkpoints, weights on disk, progress, stopping, errors.

Nothing here knows what is trained or drawn. `torch_file`, `torch_old` and `numpy_pickle` read published files as
data, so that nothing in them is executed. Imports nothing of the package outside. Start with `sharding`.
"""
