#!@shell@
# Starts ComfyUI with its data outside the Nix store. COMFYUI_DIR names the folder; ComfyUI's own flags win.
set -eu

backend=@backend@ # auto: CUDA before XPU before CPU
python=@python@
cuda_python=@cudaPython@
only_looks= own_folder= own_database=
for word in "$@"; do
  case $word in
    --force-intel-xpu | --intel-device | --intel-device=*) backend=xpu ;;
    --cpu) backend=cpu ;;
    --help | -h | --help-gpu) only_looks=1 ;;
    --base-directory | --base-directory=*) own_folder=1 ;;
    --database-url | --database-url=*) own_database=1 ;;
  esac
done

has_cuda() { "$1" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2> /dev/null; }

unset PYTHONPATH NIX_PYTHONPATH
export PYTHONNOUSERSITE=1
# Libraries are found by run paths; what else the user has on LD_LIBRARY_PATH is left as it is. Off NixOS there are no
# drivers at @driverLink@, and those of nixpkgs serve.
if [ ! -e @driverLink@/lib/libze_intel_gpu.so.1 ]; then
  export ZE_ENABLE_ALT_DRIVERS="${ZE_ENABLE_ALT_DRIVERS-@drivers@/lib/libze_intel_gpu.so.1}"
  export OCL_ICD_VENDORS="${OCL_ICD_VENDORS-@opencl@/etc/OpenCL/vendors}"
fi
# For kernels and code that are compiled while ComfyUI runs.
export PATH="${PATH:+$PATH:}@compilers@"
export CC="${CC-@cc@/bin/cc}" CXX="${CXX-@cc@/bin/c++}"
export ZE_PATH="${ZE_PATH-@levelZero@}" LIBRARY_PATH="${LIBRARY_PATH:+$LIBRARY_PATH:}@levelZero@/lib"

if [ -n "$cuda_python" ]; then
  case $backend in
    cuda) python=$cuda_python ;;
    auto) if has_cuda "$cuda_python"; then python=$cuda_python; fi ;;
  esac
fi

case $backend in
  xpu) set -- --force-intel-xpu "$@" ;;
  cuda)
    unset PATCHFORGE_PREFER_XPU
    if [ -z "$only_looks" ] && ! has_cuda "$python"; then
      echo "comfyui-cuda: this torch finds no CUDA device" >&2
      echo "  expected: an NVIDIA GPU, its driver, and a CUDA build of torch" >&2
      echo "  to do: comfyui-cuda --help-gpu shows what is found; comfyui-xpu.override { cudaPython = ...; } gives it such a torch; comfyui-xpu and comfyui use what there is" >&2
      exit 1
    fi
    ;;
esac

if [ -z "$only_looks" ]; then
  folder=${COMFYUI_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/comfyui}
  cache=${COMFYUI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/comfyui}
  export SYCL_CACHE_DIR="${SYCL_CACHE_DIR-$cache/sycl}" NEO_CACHE_DIR="${NEO_CACHE_DIR-$cache/neo}"
  export TRITON_CACHE_DIR="${TRITON_CACHE_DIR-$cache/triton}"
  export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR-$cache/inductor}"
  export AUX_ANNOTATOR_CKPTS_PATH="${AUX_ANNOTATOR_CKPTS_PATH-$folder/models/annotators}"
  mkdir -p "$SYCL_CACHE_DIR" "$NEO_CACHE_DIR" "$TRITON_CACHE_DIR" "$TORCHINDUCTOR_CACHE_DIR"
  if [ -z "$own_folder" ]; then
    mkdir -p "$folder/models" "$folder/custom_nodes" "$folder/input" "$folder/output" "$folder/temp" "$folder/user"
    set -- --base-directory "$folder" "$@"
    if [ -z "$own_database" ]; then set -- --database-url "sqlite:///$folder/user/comfyui.db" "$@"; fi
  fi
fi
export ZES_ENABLE_SYSMAN="${ZES_ENABLE_SYSMAN-1}"
for paths in @nodes@; do
  set -- --extra-model-paths-config "$paths" "$@"
done
exec "$python" @main@ "$@"
