"""Differential privacy whose record is the patient: DP-SGD steps and accountants.

`policy` says which settings hold and refuses a round over the budget, `sampling` draws patients,
`dp_sgd` takes the noised steps, `patient_gradients` makes each sample's gradient, `accounting` says
what they cost, `calibration` finds the noise for a wanted cost, `ledger` keeps what was spent on
whom, `guards` refuses what would be silently wrong, `membership` tells how much a model gives away,
`secret` is where the randomness of all that comes from. Nothing is imported here, so that commands
answer fast.

What the guarantee covers: the *weights* a site sends. A mean training loss is computed from raw
losses without noise; under DP it may not leave the site.
"""
