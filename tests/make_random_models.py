#!/usr/bin/env python3
"""Write models of random weights in the layout of the hub: real architectures, no download.

    python tests/make_random_models.py /tmp/mert --shape mert-95m             # full size, 378 MB
    python tests/make_random_models.py /tmp/tiny --shape mert-330m --tiny --safetensors

Shapes: `mert-95m` (post-LN, MERTModel's own config keys), `mert-330m` (pre-LN), `wav2vec2-base`
(as Wav2Vec2ForPreTraining, with its prefix and quantizer head). As on the hub, `pytorch_model.bin`
has the old names of weight norm (`weight_g`, `weight_v`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SHAPES = {
    "mert-95m": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
    "mert-330m": dict(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, do_stable_layer_norm=True
    ),
    "wav2vec2-base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
}
TINY = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, conv_dim=[24] * 7)


def architecture(shape: str, tiny: bool) -> dict[str, Any]:
    """Config keys as config.json on the hub has them."""
    config: dict[str, Any] = {
        "conv_dim": [512] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_bias": False,
        "conv_stride": [5, 2, 2, 2, 2, 2, 2], "feat_extract_norm": "group",
        "feat_extract_activation": "gelu", "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16,
        "do_stable_layer_norm": False, **SHAPES[shape], **(TINY if tiny else {}),
    }  # fmt: skip
    config["intermediate_size"] = 4 * config["hidden_size"]
    return config


def hub_config(shape: str, config: dict[str, Any]) -> dict[str, Any]:
    """The rest of config.json: what a loader must ignore or refuse."""
    if shape == "wav2vec2-base":
        return {**config, "architectures": ["Wav2Vec2ForPreTraining"], "model_type": "wav2vec2"}
    names = {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"}
    return {
        **config, "architectures": ["MERTModel"], "model_type": "mert_model", "auto_map": names,
        "attention_relax": 32.0 if config["do_stable_layer_norm"] else -1.0, "deepnorm": False,
        "feature_extractor_cqt": False, "cqt_bins": 336, "sample_rate": 24000,
        "feat_proj_layer_norm": True, "apply_spec_augment": False, "torch_dtype": "float32",
    }  # fmt: skip


def plain_model(shape: str, config: dict[str, Any]) -> Any:
    """The library's own model with random weights that make no layer trivial."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForPreTraining

    torch.manual_seed(12342)
    if shape == "wav2vec2-base":
        model = Wav2Vec2ForPreTraining(Wav2Vec2Config(**config))
    else:
        model = HubertModel(HubertConfig(**config))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
        elif "layers" in name and parameter.dim() == 2:
            parameter.data *= 2.5
    return model.eval()


def old_name(name: str) -> str:
    """Weight norm as torch called it before parametrizations, and as the hub's files do."""
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v")


def write_model(directory: Path, shape: str, *, tiny: bool, safetensors: bool = False) -> Any:
    """Write config.json, preprocessor_config.json and weights; return the library's model."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    config = architecture(shape, tiny)
    model = plain_model(shape, config)
    tensors = {old_name(key): value.contiguous() for key, value in model.state_dict().items()}
    if safetensors:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    else:
        torch.save(tensors, directory / "pytorch_model.bin")
    rate = 16000 if shape == "wav2vec2-base" else 24000
    listening = {"do_normalize": True, "feature_size": 1, "sampling_rate": rate}
    (directory / "config.json").write_text(json.dumps(hub_config(shape, config), indent=2))
    (directory / "preprocessor_config.json").write_text(json.dumps(listening))
    return getattr(model, "wav2vec2", model)


def main() -> None:
    """Write the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="mert-95m")
    parser.add_argument("--tiny", action="store_true", help="a model of a few kilobytes")
    parser.add_argument("--safetensors", action="store_true", help="instead of pytorch_model.bin")
    args = parser.parse_args()
    write_model(args.directory, args.shape, tiny=args.tiny, safetensors=args.safetensors)


if __name__ == "__main__":
    main()
