#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel
