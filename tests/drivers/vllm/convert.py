"""Makes a model's folder of a GGUF file, with the libraries of vLLM's own environment:

    PYTHON convert.py GGUF FOLDER

It imports nothing of ours. The weights are unpacked to bfloat16; tokenizer and chat template come along.
"""

import sys
from pathlib import Path


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    model = model.to(torch.bfloat16)
    # Else it would be saved as what it was, which cannot be.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = torch.bfloat16
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
