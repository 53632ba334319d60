"""A round whose updates the coordinator sees as their sum alone.

    invite -> keys -> shares -> training, masked -> survivors agreed -> unmasked sum -> one reply

`nognet.secagg` has the cryptography; here are the messages, who answered them and who is left out.
"""
