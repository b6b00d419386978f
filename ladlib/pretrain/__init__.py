"""Make a toy model from nothing: a small Qwen2.5-VL that can describe, count, compare and keep a format.

    ladlib pretrain base
    ladlib pretrain large

Everything is drawn from seeds, step by step, so a run that was stopped goes on as if it had not been.
Departures from how a real base model comes about: no web text, no natural images; a curriculum from
single images to pairs; and the loss on the tokens that carry a judgement weighs more, since a mean
over all tokens hides them (a verdict is one token in sixty). The vision tower first learns alone, to name
what each image token shows in the language model's own words, so that later it need only be copied; and the
large model does not begin with nothing but grows out of the base.
"""

from ladlib.pretrain.architecture import make_model, make_toy_processor
from ladlib.pretrain.loop import pretrain
from ladlib.pretrain.recipes import RECIPES, Phase, Recipe

__all__ = ["RECIPES", "Phase", "Recipe", "make_model", "make_toy_processor", "pretrain"]
