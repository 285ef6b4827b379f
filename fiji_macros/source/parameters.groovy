#@ File (label="Model for Fiji (.zip)", style="file", persist=false) model
#@ Boolean (label="Normalize first", value=true, required=false, persist=false) normalizeInput
#@ Double (label="Bottom percentile (-1: the model's own)", value=-1.0, required=false, persist=false) percentileBottom
#@ Double (label="Top percentile (-1: the model's own)", value=-1.0, required=false, persist=false) percentileTop
#@ Boolean (label="Clip above the top percentile", value=false, required=false, persist=false) clip
#@ Integer (label="Number of tiles (0: as the memory needs)", value=0, min=0, required=false, persist=false) nTiles
#@ Integer (label="Tile size is a multiple of (0: the model's own)", value=0, min=0, required=false, persist=false) blockMultiple
#@ Integer (label="Overlap of tiles in pixels (-1: the model's own)", value=-1, min=-1, required=false, persist=false) overlap
#@ Integer (label="Batch size", value=1, min=1, required=false, persist=false) batchSize
#@ String (label="Engine", choices={"auto", "onnx", "plugin"}, value="auto", required=false, persist=false) engine
