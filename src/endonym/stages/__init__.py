"""The only place where the parts meet: each file is one stage, thin, inputs to artifact."""
