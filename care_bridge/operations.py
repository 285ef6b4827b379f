"""Which operations of a graph only compute; everything else is refused by name before a runtime sees the graph.

A network takes numbers and gives numbers. TensorFlow and ONNX Runtime also have operations that read and write files, call
Python, ask other machines or load libraries, and run them for whoever opens the graph. What is listed here can do none of
that; a graph with anything else in it, a custom operation included, is not opened.
"""

from __future__ import annotations

from collections.abc import Iterable

_ARRAYS = """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Cast CheckNumerics
    Concat ConcatOffset ConcatV2 ConjugateTranspose Const DeepCopy DepthToSpace Diag DiagPart DynamicPartition
    DynamicStitch Empty EnsureShape ExpandDims ExtractImagePatches ExtractVolumePatches Fill Gather GatherNd
    GatherV2 GuaranteeConst Identity IdentityN InplaceAdd InplaceSub InplaceUpdate InvertPermutation ListDiff
    LowerBound MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2
    MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad MirrorPadGrad OneHot OnesLike Pack
    Pad PadV2 ParallelConcat ParallelDynamicStitch Placeholder PlaceholderV2 PlaceholderWithDefault
    PreventGradient Range Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd
    ScatterNdNonAliasingAdd SearchSorted Select SelectV2 Shape ShapeN Size Slice Snapshot SpaceToBatch
    SpaceToBatchND SpaceToDepth Split SplitV Squeeze StopGradient StridedSlice StridedSliceGrad
    TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate
    TensorStridedSliceUpdate Tile TileGrad Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2
    Unpack UnravelIndex UpperBound Where ZerosLike
"""
_MATHEMATICS = """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan
    Atan2 Atanh BatchMatMul BatchMatMulV2 BatchMatMulV3 BesselI0 BesselI0e BesselI1 BesselI1e Betainc Bincount
    BitwiseAnd BitwiseOr BitwiseXor Bucketize Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Cross
    CumulativeLogsumexp Cumprod Cumsum DenseBincount Digamma Div DivNoNan Einsum Equal Erf Erfc Erfinv
    EuclideanNorm Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual HistogramFixedWidth Igamma
    IgammaGradA Igammac Imag Inv InvGrad Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma LinSpace
    Log Log1p LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg
    NextAfter NotEqual NthElement Polygamma PopulationCount Pow Prod QuantizeAndDequantize
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 Real RealDiv Reciprocal
    ReciprocalGrad RightShift Rint Round Rsqrt RsqrtGrad SegmentMax SegmentMean SegmentMin SegmentProd
    SegmentSum Sigmoid SigmoidGrad Sign Sin Sinh Sqrt SqrtGrad Square SquaredDifference Sub Sum Tan Tanh
    TanhGrad TopK TopKV2 TruncateDiv TruncateMod UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
    UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
"""
_NETWORKS = """
    AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BatchNormWithGlobalNormalization
    BatchNormWithGlobalNormalizationGrad BiasAdd BiasAddGrad BiasAddV1 Conv Conv2D Conv2DBackpropFilter
    Conv2DBackpropInput Conv3D Conv3DBackpropFilter Conv3DBackpropFilterV2 Conv3DBackpropInput
    Conv3DBackpropInputV2 DataFormatDimMap DataFormatVecPermute DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dequantize Dilation2D
    Dilation2DBackpropFilter Dilation2DBackpropInput Elu EluGrad FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxArgsGradient FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsGradient
    FakeQuantWithMinMaxVarsPerChannel FakeQuantWithMinMaxVarsPerChannelGradient FractionalAvgPool
    FractionalAvgPoolGrad FractionalMaxPool FractionalMaxPoolGrad FusedBatchNorm FusedBatchNormGrad
    FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D
    FusedResizeAndPadConv2D InTopK InTopKV2 L2Loss LRN LRNGrad LeakyRelu LeakyReluGrad LogSoftmax MaxPool
    MaxPool3D MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradGradV2
    MaxPoolGradGradWithArgmax MaxPoolGradV2 MaxPoolGradWithArgmax MaxPoolV2 MaxPoolWithArgmax QuantizeV2
    QuantizedConv2D QuantizedMaxPool QuantizedRelu QuantizedRelu6 Relu Relu6 Relu6Grad ReluGrad Selu SeluGrad
    Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SoftsignGrad
    SparseSoftmaxCrossEntropyWithLogits _FusedBatchNormEx _FusedConv2D _FusedMatMul
"""
_IMAGES_AND_SPECTRA = """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize CropAndResizeGradBoxes
    CropAndResizeGradImage FFT FFT2D FFT3D FFTND HSVToRGB IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D
    IRFFTND ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 RFFT RFFT2D RFFT3D RFFTND RGBToHSV ResizeArea ResizeBicubic ResizeBicubicGrad
    ResizeBilinear ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad ScaleAndTranslate
    ScaleAndTranslateGrad
"""
_MATRICES = """
    BatchCholesky BatchMatrixBandPart BatchMatrixDiag BatchMatrixDiagPart BatchMatrixInverse
    BatchMatrixSetDiag Cholesky CholeskyGrad LogMatrixDeterminant Lu MatrixDeterminant MatrixExponential
    MatrixInverse MatrixLogarithm MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Qr
    SelfAdjointEig SelfAdjointEigV2 Svd TridiagonalMatMul TridiagonalSolve
"""
_RANDOM = """
    Multinomial ParameterizedTruncatedNormal RandomCrop RandomGamma RandomPoisson RandomPoissonV2
    RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt StatefulStandardNormalV2
    StatefulTruncatedNormal StatefulUniform StatelessMultinomial StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2
    StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
"""
# Values that live as long as the session; what is trained beside the network lies in graphs of Keras 1 and 2 too.
_VARIABLES = """
    ApplyAdaMax ApplyAdadelta ApplyAdagrad ApplyAdam ApplyCenteredRMSProp ApplyFtrl ApplyGradientDescent
    ApplyMomentum ApplyRMSProp Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp
    AssignVariableOp DestroyResourceOp DisableCopyOnRead DestroyTemporaryVariable IsVariableInitialized ReadVariableOp
    ResourceApplyAdaMax ResourceApplyAdadelta ResourceApplyAdagrad ResourceApplyAdagradV2 ResourceApplyAdam
    ResourceApplyAdamWithAmsgrad ResourceApplyCenteredRMSProp ResourceApplyFtrl ResourceApplyFtrlV2
    ResourceApplyGradientDescent ResourceApplyKerasMomentum ResourceApplyMomentum ResourceApplyRMSProp
    ResourceGather ResourceGatherNd ResourceScatterAdd ResourceScatterNdUpdate ResourceScatterSub
    ResourceScatterUpdate ScatterAdd ScatterNdAdd ScatterNdSub ScatterNdUpdate ScatterSub ScatterUpdate
    TemporaryVariable VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2
"""
# Functions that are called are in the graph's library, whose operations are looked at as well.
_CONTROL = """
    Assert Case ControlTrigger Enter Exit FakeParam For If LoopCond Merge NextIteration NoOp PartitionedCall
    RefEnter RefExit RefIdentity RefMerge RefNextIteration RefSelect RefSwitch StatefulPartitionedCall
    StatelessCase StatelessIf StatelessWhile Switch SymbolicGradient While _Arg _Retval
"""
_LISTS = """
    EmptyTensorList TensorArray TensorArrayClose TensorArrayCloseV2 TensorArrayCloseV3 TensorArrayConcat
    TensorArrayConcatV2 TensorArrayConcatV3 TensorArrayGather TensorArrayGatherV2 TensorArrayGatherV3
    TensorArrayGradV3 TensorArrayRead TensorArrayReadV2 TensorArrayReadV3 TensorArrayScatter
    TensorArrayScatterV2 TensorArrayScatterV3 TensorArraySize TensorArraySizeV2 TensorArraySizeV3
    TensorArraySplitV3 TensorArrayV2 TensorArrayV3 TensorArrayWrite TensorArrayWriteV2 TensorArrayWriteV3
    TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
"""
# Texts in memory: names of checkpoints are put together of them, summaries are written by other operations only.
_TEXTS = """
    AsString HistogramSummary ImageSummary MergeSummary RegexFullMatch RegexReplace ScalarSummary
    StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin StringLength StringLower StringUpper
    Substr TensorSummary TensorSummaryV2
"""

COMPUTING = frozenset(
    " ".join(
        (
            _ARRAYS,
            _MATHEMATICS,
            _NETWORKS,
            _IMAGES_AND_SPECTRA,
            _MATRICES,
            _RANDOM,
            _VARIABLES,
            _CONTROL,
            _LISTS,
            _TEXTS,
        )
    ).split()
)
"""TensorFlow's operations, of 1.12 to 2.x, that can touch nothing outside of the graph."""

SAVING = frozenset({"SaveV2", "ShardedFilename", "MergeV2Checkpoints"})
RESTORING = "RestoreV2"
"""What every bundle with variables has, for its own variables; see `bundle`."""

ONNX_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""The standard's own: its operations compute, all of them."""

_FASTER = """
    BiasAdd BiasGelu BiasSplitGelu ConvTransposeWithDynamicPads DequantizeLinear FastGelu FusedConv FusedGemm
    FusedMatMul Gelu GridSample GroupNorm NhwcConv NhwcFusedConv NhwcMaxPool QLinearAdd QLinearAveragePool
    QLinearConcat QLinearConv QLinearLeakyRelu QLinearMul QLinearSigmoid QuantizeLinear QuickGelu
    SkipGroupNorm
"""
ONNX_COMPUTING = frozenset(f"com.microsoft.{name}" for name in _FASTER.split())
"""What ONNX Runtime writes into graphs that it made faster."""

_WHAT = {
    "reads or writes files": """
        WriteFile ReadFile MatchingFiles MatchingFilesDataset ExperimentalMatchingFilesDataset WholeFileReader
        WholeFileReaderV2 TextLineReader TextLineReaderV2 TextLineDataset TFRecordReader TFRecordReaderV2 TFRecordDataset
        FixedLengthRecordReader FixedLengthRecordReaderV2 FixedLengthRecordDataset LMDBReader LMDBDataset SqlDataset
        CSVDataset DatasetToTFRecord InitializeTableFromTextFile InitializeTableFromTextFileV2 ImmutableConst Save
        SaveSlices SaveV2 MergeV2Checkpoints Restore RestoreSlice RestoreV2 LoadAndRemapMatrix GenerateVocabRemapping
        CreateSummaryFileWriter CreateSummaryDbWriter SummaryWriter WriteSummary WriteGraphSummary WriteScalarSummary
        WriteImageSummary WriteHistogramSummary WriteRawProtoSummary DecodeProtoV2 EncodeProto SaveDataset
        SaveDatasetV2 LoadDataset SnapshotDataset SnapshotDatasetV2 CacheDataset CacheDatasetV2 PrintV2 Print
    """,
    "runs Python": "PyFunc PyFuncStateless EagerPyFunc com.microsoft.PythonOp com.microsoft.PythonOpGrad",
    "asks other machines": "Rpc TryRpc RemoteCall BigQueryReader GcsConfigureCredentials _Send _Recv",
    "runs a program that lies in the file or beside it": "XlaLaunch XlaCustomCall XlaCustomCallV2 TPUPartitionedCall "
    "XlaCallModule RemoteFusedGraphExecute com.microsoft.EPContext",
}
_WHAT_OF = {name: what for what, names in _WHAT.items() for name in names.split()}


def refusal(names: Iterable[str]) -> str:
    """What to say of operations that are not known to compute only; "" where there are none."""
    found = sorted(set(names))
    if not found:
        return ""
    said = [f"{name} ({_WHAT_OF.get(name, 'not known to compute only')})" for name in found[:5]]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return (
        f"its graph holds {', '.join(said)}{more}; a network only computes, and nothing of others is run that can touch a "
        "file, the network or a process, so it was not opened; export the network again without them"
    )
