"""A randomly initialised BERT of one layer, 32 wide, with a vocabulary of its own: real training in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def make_tiny_encoder(folder: Path, words: Sequence[str]) -> Path:
    """Save an encoder that knows `words` whole and everything else by letters; returns the folder."""
    size = make_tiny_tokenizer(folder, words, BERT)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_tiny_tokenizer(folder: Path, words: Sequence[str], special: Mapping[str, str]) -> int:
    """Save a tokenizer whose first ids are the special tokens, in their order; returns how many tokens it has."""
    letters = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,!?" for prefix in ("", "##")]
    pieces = [*special.values(), *words, *letters]
    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token=special["unk"]))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    first, last = special["cls"], special["sep"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", pair=None, special_tokens=[(first, ids[first]), (last, ids[last])]
    )
    names = {f"{role}_token": token for role, token in special.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return len(pieces)
