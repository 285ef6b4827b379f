"""A bundle run by TensorFlow 1.x, the very library that the CSBDeep plugin calls, in a worker process."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from care_bridge.bundle import Bundle, read_bundle
from care_bridge.defaults import TF1_VERSION, TF1_VERSIONS
from care_bridge.errors import InputError, WorkerError
from care_bridge.java import runtimes
from care_bridge.java.worker import Worker, heap_mb
from care_bridge.predictor import Runtime, Tensor, UnhintedNetwork

_HEAP_MB = 256  # tensors lie outside the Java heap


class TensorFlowError(WorkerError):
    """TensorFlow 1.x answered, and the answer is no; its worker lives on.

    Attributes
    ----------
    reason : str
        TensorFlow's own message, with the operation and attribute it does not know where that is the reason.
    """

    def __init__(self, what: str, message: str) -> None:
        self.reason = refusal(message)
        super().__init__(f"{what}: {_in_short(self.reason)}")


class Tf1Session:
    """One TensorFlow 1.x in one worker process, for any number of bundles; use it as a context manager.

    A worker that crashed or hung is started again at the next use.

    Parameters
    ----------
    version : str
        One of `defaults.TF1_VERSIONS`.
    threads : int, optional
        How many threads compute; None leaves it to TensorFlow. Results differ by up to 1e-5 between numbers
        of threads, because sums are taken in another order.
    timeout_s : float, optional
        Seconds without a sign of life after which the worker is ended; None takes `CARE_BRIDGE_TIMEOUT` or
        `worker.DEFAULT_TIMEOUT_S`.

    Raises
    ------
    NotInstalledError
        If this TensorFlow or Java is not here; the message holds the command that adds it.
    """

    def __init__(
        self, version: str = TF1_VERSION, *, threads: int | None = None, timeout_s: float | None = None
    ) -> None:
        if version not in TF1_VERSIONS:
            raise InputError(f"version={version!r} is none of TensorFlow {', '.join(TF1_VERSIONS)}")
        if threads is not None and not 1 <= threads <= 127:
            raise InputError(f"threads={threads} is not between 1 and 127")
        runtimes.require(f"tf1-{version}")
        self.version = version
        self._threads = threads or 0
        self._timeout_s = timeout_s
        self._worker: Worker | None = None
        self._keys = itertools.count()

    @property
    def worker(self) -> Worker:
        """The living worker; started if there is none."""
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(
                "care_bridge.java.tf1_worker",
                settings={
                    "version": self.version,
                    "jar": str(runtimes.tensorflow_jar(self.version)),
                    "library_folder": str(runtimes.tensorflow_library(self.version)),
                    "java": str(runtimes.java_home()),
                    "heap_mb": heap_mb(share=0.1, most_mb=_HEAP_MB),
                },
                environment={"TF_CPP_MIN_LOG_LEVEL": "1"},
                timeout_s=self._timeout_s,
            )
        return self._worker

    def open(self, bundle: str | os.PathLike[str] | Bundle) -> Tf1Network:
        """Load a bundle; as `Tf1Network(bundle, session=self)`."""
        return Tf1Network(bundle, session=self)

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Tf1Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _load(self, bundle: Bundle) -> tuple[Worker, str]:
        worker, key = self.worker, str(next(self._keys))
        folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=worker.folder))
        try:
            worker.call("load", folder=str(bundle.unpack(folder)), key=key, threads=self._threads)
        except WorkerError as error:
            if not worker.alive:
                raise
            raise TensorFlowError(f"TensorFlow {self.version} refuses {bundle.path}", str(error)) from None
        finally:
            # TensorFlow has it in memory now.
            shutil.rmtree(folder, ignore_errors=True)
        return worker, key


class Tf1Network(UnhintedNetwork):
    """The network of a bundle in TensorFlow 1.x; a `predictor.Network`, and a context manager.

    Parameters
    ----------
    bundle : path or Bundle
        A zip that "Run your network" opens, or a SavedModel folder.
    version : str
        One of `defaults.TF1_VERSIONS`; ignored where a session is given.
    session : Tf1Session, optional
        A running TensorFlow to use; without it this network starts its own and ends it with itself.
    threads, timeout_s
        As for `Tf1Session`.

    Attributes
    ----------
    runtime : Runtime
        Name `tf1`, with the versions of TensorFlow and Java.
    input_shape, output_shape : tuple of int or None
        As written in the bundle: batch, spatial sizes, channels; None = any size.
    bundle : Bundle

    Raises
    ------
    InputError
        If the bundle cannot be read.
    TensorFlowError
        If this TensorFlow refuses it.
    NotInstalledError
        If this TensorFlow is not here.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        version: str = TF1_VERSION,
        *,
        session: Tf1Session | None = None,
        threads: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
        signature = self.bundle.signature
        self._input, self._output = signature.inputs[0], signature.outputs[0]
        self._owns_session = session is None
        self._session = session or Tf1Session(version, threads=threads, timeout_s=timeout_s)
        try:
            self._worker, self._key = self._session._load(self.bundle)
        except BaseException:
            if self._owns_session:
                self._session.close()
            raise
        self.runtime = Runtime("tf1", dict(self._worker.facts))
        self.probabilistic = self.bundle.meta.probabilistic

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        return self._input.shape or ()

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        return self._output.shape or ()

    def __call__(self, tensor: Tensor, *, timeout_s: float | None = None) -> Tensor:
        """Run the network.

        Parameters
        ----------
        tensor : ndarray, shape (batch, [z,] y, x, channel)
            Converted to float32.
        timeout_s : float, optional
            For this call.

        Returns
        -------
        ndarray, float32
            Large ones are memory-mapped from a file that ends with them.

        Raises
        ------
        TensorFlowError
            If TensorFlow refuses the tensor. It asks the graph, not the signature, what fits: a size fixed in the
            signature alone binds nobody.
        WorkerError
            If the worker hangs or crashes; the next call starts another.
        """
        tensor = np.asarray(tensor, dtype=np.float32)
        if not self._worker.alive or self._worker is not self._session.worker:
            self._worker, self._key = self._session._load(self.bundle)
        try:
            answer = self._worker.call(
                "run",
                arrays={"input": tensor},
                timeout_s=timeout_s,
                key=self._key,
                feed=_operation(self._input.name),
                fetch=_operation(self._output.name),
            )
        except WorkerError as error:
            if not self._worker.alive:
                raise
            raise TensorFlowError(
                f"TensorFlow {self._session.version} fails on a tensor of shape {tensor.shape} in "
                f"{self.bundle.path}",
                str(error),
            ) from None
        return answer.arrays["output"]

    def close(self) -> None:
        """End the worker if it is this network's own, else let the worker forget the model."""
        if self._owns_session:
            self._session.close()
        elif self._worker.alive:
            self._worker.call("unload", key=self._key)


def _in_short(reason: str) -> str:
    """A refusal for a person: which operation or attribute, and what to do."""
    advice = "export the model anew with care-bridge export --format fiji, which uses nothing newer than 1.12"
    unknown = re.match(r"(NodeDef mentions attr '.+?' not in Op<name=\w+)", reason)
    if unknown:
        return f"{unknown[1]}>; {advice}"
    unknown = re.match(r"(Op type not registered '.+?')", reason)
    return f"{unknown[1]}; {advice}" if unknown else reason


def refusal(text: str) -> str:
    """TensorFlow's message without the Java class in front and without the advice to check the binary."""
    text = text.split(" (Check whether your GraphDef-interpreting", 1)[0]
    name, colon, rest = text.partition(": ")
    return rest if colon and name.startswith(("java.", "org.tensorflow.")) else text


def _operation(tensor_name: str) -> str:
    # The Java API takes an operation's name, with ":1" only where it is not the first output.
    return tensor_name.removesuffix(":0")
