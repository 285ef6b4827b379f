#@ File (label="Model", style="file", visibility="INVISIBLE", required=false, persist=false) model
#@ Boolean (label="Normalize first", value=true, visibility="INVISIBLE", required=false, persist=false) normalizeInput
#@ Double (label="Bottom percentile", value=-1.0, visibility="INVISIBLE", required=false, persist=false) percentileBottom
#@ Double (label="Top percentile", value=-1.0, visibility="INVISIBLE", required=false, persist=false) percentileTop
#@ Boolean (label="Clip", value=false, visibility="INVISIBLE", required=false, persist=false) clip
#@ Integer (label="Tiles", value=0, visibility="INVISIBLE", required=false, persist=false) nTiles
#@ Integer (label="Tile size", value=0, visibility="INVISIBLE", required=false, persist=false) blockMultiple
#@ Integer (label="Overlap", value=-1, visibility="INVISIBLE", required=false, persist=false) overlap
#@ Integer (label="Batch size", value=1, visibility="INVISIBLE", required=false, persist=false) batchSize
#@ String (label="Engine", value="auto", visibility="INVISIBLE", required=false, persist=false) engine
