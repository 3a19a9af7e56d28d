"""`python app.py` starts the studio, on one's own machine as on a Hugging Face Space."""

import sys

from studio.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="python app.py"))
