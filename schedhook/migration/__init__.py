"""Moving pages: selection, sweeps, retry and what stays behind."""
