"""Work that is done in one kernel on a GPU, each beside the plain function with the same signature and result.

Plain functions (`loss`, `networks`) need torch alone and are quick on a CPU too: gradients are written out, nothing is
recorded for autograd. Files named `triton_*` hold the kernels and import Triton, which comes with torch for CUDA;
import them only where they are to be used. `choice` compares and times the two, `known` says which policies they know,
and `chosen` has those of one algorithm, for the execution on CUDA.
"""
