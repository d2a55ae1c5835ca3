"""The paper: pure functions and static dataclasses, jit-able, without files.

`layout` says which step emits which token; `flow` maps noise to a code (Eq. 3, 4); `ar` walks the steps (Alg. 1);
`fewstep` runs plans (Alg. 3, 4), `refine` certifies drafts, `losses` and `student` are Alg. 2's.
May import `nn` and `system`. Start with `fewstep`, the paper beside it; `interfaces` says what models must offer.
"""
