"""One page that runs a network in a browser: its weights, and the network in JavaScript. Imports no torch.

The page needs nothing but itself: `page.html` is the frame, into which `page.css`, the scripts and the data go.

    text.js      any text as symbols, as in `tasks/text.py`
    network.js   the network of one string, step by step, as in `kernels/cpu/stream.h`
    train.js     a small network that is trained from nothing, in a worker, by way of arithmetic.js and batch.js
    training.js  what is shown of that
    view.js      what is shown, and what the visitor does
"""

from stackrev.page.compose import Contents as Contents
from stackrev.page.compose import compose as compose
from stackrev.page.compose import read as read
