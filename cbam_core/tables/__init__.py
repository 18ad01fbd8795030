"""Images that a table lists: CSV, Parquet, or a folder of Hugging Face's `datasets`; read with pyarrow alone."""
