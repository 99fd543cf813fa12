# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that torch-xpu-ops does not compute on the device, as far as its source lists them.

The list says which operators fall back to the CPU; the coverage mode refuses them, so that they are noticed. Operators
that have neither a kernel nor a place in that list cannot be told from it and are left out: a pass in this mode does
not show that a real device has every operator used.
"""

SOURCE = "github.com/intel/torch-xpu-ops, src/ATen/native/xpu/XPUFallback.cpp"
COMMIT = "ab84f925a234f33ee70a29af59c03aefdeff68c3"
DATE = "2026-08-22"

FALLBACKS = (
    "_cholesky_solve_helper",
    "_efficient_attention_forward",
    "_linalg_eigh.eigenvalues",
    "_linalg_eigvals",
    "_linalg_svd.U",
    "_validate_compressed_sparse_indices",
    "cholesky_inverse",
    "cholesky_inverse.out",
    "hash_tensor.out",
    "linalg_cholesky_ex.L",
    "linalg_eig",
    "linalg_eig.out",
    "linalg_eigvals.out",
    "linalg_ldl_factor_ex.out",
    "linalg_ldl_solve.out",
    "linalg_lstsq.out",
    "linalg_lu.out",
    "linalg_matrix_exp",
    "linalg_matrix_sqrth",
    "linalg_polar.out",
    "lu_unpack.out",
    "ormqr",
    "ormqr.out",
    "triangular_solve.X",
)
