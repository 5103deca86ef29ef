"""What a person looks at: tables on the terminal, one offline HTML page for a run. Plain data in, text out."""
