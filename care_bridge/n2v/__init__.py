"""What a notebook of Noise2Void imports: replace ``from n2v`` by ``from care_bridge.n2v`` and it runs.

Names, order of arguments and defaults are those of n2v 0.3.3, whose own csbdeep imports go to `care_bridge.csbdeep`; the
work is done by the rest of the package. Where n2v does harm, this does not:

- ``single_net_per_channel`` gives each network its own channel, not the last one to all;
- a network's places are hidden in all its channels at once, and in 3-D as many as ``n2v_perc_pix`` says;
- ``export_TF`` writes what today's BioImage.IO readers open, and a bundle for Fiji;
- ``train_tensorboard`` is off, since TensorFlow no longer brings TensorBoard.

docs/from-n2v.md lists all that differs, docs/api.md the names.
"""
