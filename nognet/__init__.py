"""nognet: federated training of MT-NoGNet on longitudinal chest CT.

The way of the data is one way, and the folders follow it: ``data`` (files to volumes to pairs),
``network``, ``metrics``, ``privacy`` (siblings), ``fit`` (training and evaluation at one site),
``wire`` (what travels), then ``nognet_client`` and ``nognet_server``, then ``report``.
"""

__version__ = "0.1.0"
