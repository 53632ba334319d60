"""MT-NoGNet: shared encoder, deformation and texture decoders, warp and losses."""
