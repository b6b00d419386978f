"""GRPO that computes what the completions of a group have in common once.

Stock TRL reads prompt and completion of each of the G completions of a prompt as a row of its own, its two images
encoded each time, in every pass: drawing, the frozen model's log-probabilities, the loss with its gradient. Here a
prompt P and its completions A, B, ... are one row, a trunk with branches, and the prompt is drawn from once::

    stock   P P P P a a a            here   P P P p a a  p b b  ...        a token sees ...
            P P P P b b b                   |trunk| |branch| |branch|
            ...                    trunk    x                              the trunk before it
                                            x x
                                            x x x
                                   branch   x x x x                        the trunk and its own branch,
                                   A        x x x x x                      and no other branch
                                            x x x x x x
                                   branch   x x x .  . .  x
                                   B        x x x .  . .  x x
                                            x x x .  . .  x x x
                                 position   0 1 2 3  4 5  3 4 5            as in a row of its own

- The prompt's last token predicts the first of a completion, so it opens every branch (the p above), and a
  completion's last token, which predicts nothing, is left out: each label stands where it is predicted.
- The positions of a branch are those of M-RoPE behind the prompt: three equal numbers that go on from its last.
- The blocks of dots are not masked but never computed: trunk and branches attend apart
  (:mod:`ladlib.shared_prefix.attention`), inside the model's own forward pass, so that PEFT, DDP, gradient
  checkpointing and TRL's fused head work as they do.
- In drawing, the prompt's keys and values are computed once, then repeated for the group, and rows leave as they
  end (:mod:`ladlib.decoding`).
- There is no pass of the old policy: one update follows each draw, so it is the policy itself (TRL sees to that).
- A group without spread of rewards has advantages of zero. Without a KL term nothing is to be learned from it, and
  no gradient of it is computed. With one, its KL term is, as in the stock trainer. ``grpo.redraws`` has such a group
  drawn again, in the hope of a spread; this favours prompts of which the policy is nearly sure, so it is off unless
  asked for.
- Prompts and completions of a micro-batch are padded to its own longest, not to that of the whole step.

The images of a prompt are cut into patches once a step (:mod:`ladlib.shared_prefix.shown`), and encoded once for all
its completions, in each pass whose tower is another: where the tower is frozen, in drawing alone. That two prompts of
a step show the same reference image is rare in training, and not used. Numbers are those of the stock trainer but for
their last digits (``tests/test_shared_prefix.py``); what is drawn is drawn from the same policy with other random
numbers.
"""
