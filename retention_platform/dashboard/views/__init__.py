"""The pages: thin Streamlit over the client, figures, sentences and markup."""
