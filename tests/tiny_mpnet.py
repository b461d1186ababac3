"""A randomly initialised MPNet of one layer: relative positions, no token types, positions from after padding's on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import MPNetConfig, MPNetModel

from tests.tiny_encoder import make_tiny_tokenizer

MPNET = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "[UNK]", "mask": "<mask>"}  # padding is 1, as MPNet wants


def make_tiny_mpnet(folder: Path, words: Sequence[str]) -> Path:
    """Save an encoder with the tiny one's words; returns the folder."""
    size = make_tiny_tokenizer(folder, words, MPNET)
    torch.manual_seed(1)
    config = MPNetConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    MPNetModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
