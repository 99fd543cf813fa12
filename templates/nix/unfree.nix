# What is not free software and is needed all the same: PyTorch for XPU has Intel's MKL in it and does not work without
# Intel's runtime libraries.
{ lib }:
rec {
  unfree = [
    "intel-oneapi-runtime"
    "intel-sycl-rt"
    "torch"
  ];
  allowUnfree = package: lib.elem (lib.getName package) unfree;
}
