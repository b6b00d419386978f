"""Tables, figures, cards and one page from what a run has stored. Needs no model and no torch."""
