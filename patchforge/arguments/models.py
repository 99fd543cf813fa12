"""What ``patchforge models …`` takes."""

from __future__ import annotations

from patchforge.arguments.parser import Parser
from patchforge.arguments.shared import add_dry_run, add_json


def list_(parser: Parser) -> None:
    """``patchforge models list``."""
    _add_places(parser)
    parser.add_argument("--hash", action="store_true", help="read every file anew, not only those that may be copies")


def link(parser: Parser) -> None:
    """``patchforge models link``."""
    _add_places(parser)
    parser.add_argument("model", metavar="MODEL", help="a file, a model of Ollama's, or a digest")
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="comfyui:FOLDER, comfyui:FOLDER/NAME or ollama:NAME, such as comfyui:text_encoders or ollama:qwen3:4b",
    )
    parser.add_argument(
        "--symlink", action="store_true", help="where ComfyUI's folder is on another disk than Ollama's blobs"
    )
    add_dry_run(parser, "say what would be linked")


def import_(parser: Parser) -> None:
    """``patchforge models import``."""
    _add_places(parser)
    parser.add_argument("paths", nargs="*", metavar="FILE", help="these files (default: every model that is found)")
    parser.add_argument("--merge", action="store_true", help="make one file of files with the same bytes")
    add_dry_run(parser, "say what would be linked, merged and freed")


def verify(parser: Parser) -> None:
    """``patchforge models verify``."""
    _add_places(parser)


def gc(parser: Parser) -> None:
    """``patchforge models gc``."""
    _add_places(parser)
    parser.add_argument("--no-comfyui", action="store_true", help="there is no ComfyUI whose links must be kept")
    parser.add_argument("--delete", action="store_true", help="remove it, instead of only saying what would be freed")


def _add_places(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--comfyui",
        action="append",
        default=[],
        metavar="DIR|YAML",
        help="ComfyUI, its models folder, or an extra_model_paths.yaml; repeat",
    )
    parser.add_argument("--ollama", metavar="DIR", help="default: OLLAMA_MODELS, else .ollama/models in your home")
    parser.add_argument("--hub", metavar="DIR", help="Hugging Face's cache (default: HF_HUB_CACHE, else as usual)")
    parser.add_argument("--store", metavar="DIR", help="default: PATCHFORGE_MODELS, else in your folder of data")
