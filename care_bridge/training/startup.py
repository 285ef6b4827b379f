"""TensorFlow without its greetings: what it says about missing GPUs is not for a person who restores images."""

from __future__ import annotations

import os
import sys

from care_bridge.errors import NotInstalledError


def check_backend() -> None:
    """Refuse a Keras that runs on anything but TensorFlow, if possible before it is imported.

    Raises
    ------
    NotInstalledError
        With what to set.
    """
    keras = sys.modules.get("keras")
    chosen = keras.backend.backend() if keras else os.environ.get("KERAS_BACKEND") or "tensorflow"
    if chosen != "tensorflow":
        raise NotInstalledError(
            f"Keras is set to run on {chosen}, but networks for Fiji need TensorFlow; set KERAS_BACKEND=tensorflow "
            "before Python starts"
        )


def load_tensorflow() -> None:
    """Import TensorFlow with stderr closed to its C++ side; a command's own lines stay the only ones there.

    Errors of the import itself are raised as ever. Messages of severity ERROR while computing are still shown.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        import tensorflow

        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow

            # Its Python side too: a second training in one process makes it warn of "retracing".
            tensorflow.get_logger().setLevel("ERROR")
            tensorflow.config.list_physical_devices()  # says more on its first look at the machine
        finally:
            os.dup2(kept, 2)
            os.close(kept)
