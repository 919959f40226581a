"""To import before all else: silences warnings of others, about what only they can mend."""

import warnings

for _message, _module in (
    ("`torch.jit.script` is deprecated", r"torch\.jit\b"),
    ("torch.meshgrid: in an upcoming release", r"torch\.functional"),
    (r"`torch\.cuda\.amp\.autocast", r"detectron2\.engine\.train_loop"),
):
    warnings.filterwarnings("ignore", _message, module=_module)
