"""PSNR, SSIM, DSC, volume errors and growth AUC, kept as mergeable statistics."""
