#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel
#@ CommandService command
#@ PrefService prefs
#@ DatasetService datasets
