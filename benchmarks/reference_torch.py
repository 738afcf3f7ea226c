"""The peer: MosaicKD as a plain eager PyTorch loop, networks of the preset `official`, no Keras.

Written from the published algorithm, the way a careful user would write it, and given every ease
that such a loop has: T requires no gradient, G makes images for S under no_grad, G's backward
pass leaves out the parameters of D and S, gradients are set to None, the batches lie ready in
memory as float tensors on the device, and of the two memory layouts the faster one is taken. G runs
once for D's and G's updates; S and G keep BatchNorm in training mode throughout, as the published
code has it. Under bfloat16 the networks run under autocast, the losses in float32.
"""

import itertools
import math
import re
import time
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

LATENT_DIM = 100


class Block(nn.Module):
    """BN, ReLU, 3×3, BN, ReLU, 3×3, added to the shortcut (wide residual network)."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.shortcut = (
            None if channels == filters else nn.Conv2d(channels, filters, 1, stride, bias=False)
        )

    def forward(self, x):
        """Features to features."""
        activated = functional.relu(self.bn1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        x = self.conv1(activated)
        return shortcut + self.conv2(functional.relu(self.bn2(x), inplace=True))


class WideResNet(nn.Module):
    """WRN-depth-width on normalised images [B, channels, h, w]."""

    def __init__(self, depth, width, classes, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks, channels = [], 16
        for group, stride in ((0, 1), (1, 2), (2, 2)):
            for block in range((depth - 4) // 6):
                filters = 16 * 2**group * width
                blocks.append(Block(channels, filters, stride if block == 0 else 1))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.logits = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """Images to logits."""
        x = functional.relu(self.bn(self.blocks(self.stem(x))), inplace=True)
        return self.logits(x.mean(dim=(2, 3)))


class Generator(nn.Module):
    """z to images [B, channels, h, w] in [0, 1]."""

    def __init__(self, size, channels=3):
        super().__init__()
        self.base = size // 4
        self.stem = nn.Linear(LATENT_DIM, 256 * self.base**2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(256),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(256, 128, 3, 1, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, channels, 3, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, z):
        """Latents to images."""
        return self.body(self.stem(z).view(len(z), 256, self.base, self.base))


def discriminator(channels=3):
    """Normalised images to a map of logits, one per patch of 10×10 pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 128, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(128, 256, 4, 2, 1, bias=False),
        nn.BatchNorm2d(256),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(256, 1, 1, bias=False),
    )


def wide_resnet(name, classes, channels=3):
    """The network called wrn<depth>_<width>."""
    match = re.fullmatch(r"wrn(\d+)_(\d+)", name)
    if match is None:
        raise SystemExit(f"the reference knows wrn<depth>_<width> only. Received: {name}")
    return WideResNet(int(match[1]), int(match[2]), classes, channels)


def kl_divergence(teacher_logits, student_logits):
    """Mean KL(T || S)."""
    return functional.kl_div(
        functional.log_softmax(student_logits.float(), dim=1),
        functional.log_softmax(teacher_logits.float(), dim=1),
        reduction="batchmean",
        log_target=True,
    )


def entropy(logits):
    """Mean entropy of the predictions."""
    log_p = functional.log_softmax(logits.float(), dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def balance(logits):
    """Negative entropy, in bits, of the mean prediction."""
    p = functional.softmax(logits.float(), dim=1).mean(dim=0)
    return (p * p.clamp_min(1e-30).log2()).sum()


def patch_loss(logits, target):
    """Cross-entropy of D's map against one answer, summed over the map."""
    logits = logits.float()
    loss = functional.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, target), reduction="sum"
    )
    return loss / len(logits)


class ReferenceLoop:
    """The game, ready to iterate.

    Args:
        options: namespace with teacher, student, classes, size, batch, student_steps, precision
            ("float32" or "bfloat16"), device ("cpu" or "cuda").
        channels_last: memory layout of networks and images.
        data: iterator over lists of 1 + student_steps tensors [B, channels, h, w] in [0, 1]; by
            default random colours that lie ready in memory.
        channels: channels of the images.
        scaling: mean and standard deviation that the networks' inputs are normalised by.
        iterations: length of the cosine schedules.
        seed: of the networks' initial weights and of z.
    """

    def __init__(
        self,
        options,
        channels_last,
        data=None,
        channels=3,
        scaling=(0.5, 0.25),
        iterations=40_000,
        seed=0,
    ):
        torch.manual_seed(seed)
        self.scaling = scaling
        self.options = options
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        place = {"device": options.device, "memory_format": self.layout}
        self.teacher = wide_resnet(options.teacher, options.classes, channels).to(**place).eval()
        self.teacher.requires_grad_(False)
        self.student = wide_resnet(options.student, options.classes, channels).to(**place)
        self.generator = Generator(options.size, channels).to(**place)
        self.discriminator = discriminator(channels).to(**place)
        self.student_optimizer = torch.optim.SGD(
            self.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
            for optimizer in (
                self.student_optimizer,
                self.generator_optimizer,
                self.discriminator_optimizer,
            )
        ]
        if data is None:
            # Four batches for D and four times K for S, of which every iteration takes one and K.
            side = options.size
            shape = (4, options.student_steps + 1, options.batch, channels, side, side)
            ready = [[images.to(**place) for images in element] for element in torch.rand(shape)]
            data = itertools.cycle(ready)
        self.data = iter(data)

    def normalize(self, images):
        """Images as the networks take them."""
        mean, deviation = self.scaling
        return (images - mean) / deviation

    def latents(self):
        """Z ~ N(0, I)."""
        return torch.randn(self.options.batch, LATENT_DIM, device=self.options.device)

    def step(self):
        """One iteration: D, G, then S student_steps times."""
        real, *ood = next(self.data)
        normalize = self.normalize
        autocast = torch.autocast(
            self.options.device,
            dtype=torch.bfloat16,
            enabled=self.options.precision == "bfloat16",
        )

        with autocast:
            synthetic = normalize(self.generator(self.latents()))
            fake_logits = self.discriminator(synthetic.detach())
            real_logits = self.discriminator(normalize(real))
            loss = (patch_loss(fake_logits, 0.0) + patch_loss(real_logits, 1.0)) / 2
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()

        with autocast:
            local = patch_loss(self.discriminator(synthetic), 1.0)
            teacher_logits = self.teacher(synthetic)
            student_logits = self.student(synthetic)
            loss = local + entropy(teacher_logits) + 10 * balance(teacher_logits)
            loss = loss - kl_divergence(teacher_logits, student_logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=list(self.generator.parameters()))
        self.generator_optimizer.step()

        for images in ood:
            with torch.no_grad(), autocast:
                synthetic = self.generator(self.latents())
                images = normalize(torch.cat([synthetic.to(images.dtype), images]))
                teacher_logits = self.teacher(images)
            with autocast:
                loss = kl_divergence(teacher_logits, self.student(images))
            self.student_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.student_optimizer.step()

        for schedule in self.schedules:
            schedule.step()
        return loss

    def run(self, iterations):
        """Seconds that so many iterations take."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(iterations):
            loss = self.step()
        self.synchronize()
        seconds = time.perf_counter() - start
        if not math.isfinite(loss.item()):
            raise SystemExit("the reference's loss is not finite")
        return seconds

    def synchronize(self):
        """Waits for the device."""
        if self.options.device == "cuda":
            torch.cuda.synchronize()


def faster_loop(options):
    """The loop in the memory layout that is faster here, warmed up.

    Returns:
        Namespace with `loop` and `layout`.
    """
    candidates = {}
    for channels_last in (False, True):
        loop = ReferenceLoop(options, channels_last)
        loop.run(2)
        candidates[channels_last] = min(loop.run(1) for _ in range(3))
        del loop
    best = min(candidates, key=candidates.get)
    loop = ReferenceLoop(options, best)
    loop.run(2)
    return SimpleNamespace(loop=loop, layout="channels_last" if best else "channels_first")
