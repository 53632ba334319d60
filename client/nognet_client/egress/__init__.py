"""The gate through which every byte from a site to the coordinator passes.

    reply -> form (what exactly it may hold) -> gate (does it?) -> receipt and audit log -> out

Of an error class and code leave, and they are recorded alike. Whatever is not known is refused.
"""
