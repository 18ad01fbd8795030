# R's numbers for the statistics of comparisons: Rscript statistics.R > statistics.txt
# One line each: a name, a colon, and numbers of 17 digits. Inputs are printed too, so that the tests take them from here.
# R 4.2.2 wrote the stored file; every function is of R's own packages stats and base.
tell <- function(name, ...) cat(name, ": ", paste(sprintf("%.17g", c(...)), collapse = " "), "\n", sep = "")

images <- 355
first <- c(331, 328, 335, 330, 333, 329, 336, 332, 327, 334)
second <- c(327, 329, 330, 328, 331, 325, 330, 331, 326, 329)
a <- first / images
b <- second / images
tell("images", images)
tell("first", first)
tell("second", second)

# Student 1908
for (confidence in c(0.95, 1 - 0.05 / 3)) {
    test <- t.test(a, b, paired = TRUE, conf.level = confidence)
    tell(paste0("interval ", if (confidence == 0.95) 1 else 3), test$conf.int)
}
tell("t-test", t.test(a, b, paired = TRUE)$p.value)
tell("s", sd(a - b))

# Every sign of every difference, by enumeration
d <- first - second
signs <- as.matrix(expand.grid(rep(list(c(-1, 1)), length(d))))
tell("sign flip", mean(abs(signs %*% d) >= abs(sum(d))))

# Holm 1979
p <- c(0.012, 0.3, 0.049, 0.0004, 0.049, 0.9)
tell("p", p)
tell("holm", p.adjust(p, "holm"))

# Schuirmann 1987: two one-sided t-tests of R's own
for (margin in c(0.005, 0.01, 0.02)) {
    above <- t.test(a, b, paired = TRUE, mu = -margin, alternative = "greater")$p.value
    below <- t.test(a, b, paired = TRUE, mu = margin, alternative = "less")$p.value
    tell(paste("tost", margin), max(above, below))
}

# Clopper and Pearson 1934
for (n in c(5, 8, 20)) for (k in c(0, 1, n - 1, n)) tell(paste("clopper-pearson", k, n), binom.test(k, n)$conf.int)
for (k in 0:1) tell(paste("collapse", k, 8), binom.test(k, 8, alternative = "less")$conf.int[2])

# Pearson's r with Fisher's interval
test <- cor.test(first, second)
tell("correlation", test$estimate, test$conf.int)

# McNemar, exact: the discordant images of one seed
for (pair in list(c(9, 2), c(4, 4), c(0, 1), c(0, 12), c(31, 58))) {
    tell(paste("mcnemar", pair[1], pair[2]), binom.test(pair[1], sum(pair))$p.value)
}

# Noncentral t
for (n in c(2, 3, 8, 20)) for (delta in c(0.2, 1, 2.5)) for (alpha in c(0.05, 0.05 / 9)) {
    power <- power.t.test(n, delta, 1, alpha, type = "paired", strict = TRUE)$power
    tell(paste("power", n, delta, if (alpha == 0.05) 1 else 9), power)
}
for (delta in c(6, 10, 25)) {
    tell(paste("power", 2, delta, 1), power.t.test(2, delta, 1, 0.05, type = "paired", strict = TRUE)$power)
}
for (n in c(5, 8, 20)) {
    difference <- power.t.test(n, NULL, 0.42, 0.05, 0.8, type = "paired", strict = TRUE, tol = 1e-14)$delta
    tell(paste("smallest difference", n), difference)
}
for (s in c(0.2, 0.3, 0.5, 0.8)) {
    n <- power.t.test(NULL, 0.5, s * sqrt(2), 0.05, 0.8, type = "paired", strict = TRUE)$n
    tell(paste("seeds", s), ceiling(n))
}
tell("upper s of 8", sqrt(7 / qchisq(0.2, 7)))
tell("stein 8", (qt(0.975, 7) * 0.0042 / 0.002)^2)

# Ratio of images/s: a t interval of logarithms
control <- c(101, 99, 98, 102, 100, 97, 103, 100)
variant <- c(94, 92, 92, 95, 93, 91, 94, 94)
tell("control images/s", control)
tell("variant images/s", variant)
test <- t.test(log(variant) - log(control))
tell("ratio", exp(test$estimate), exp(test$conf.int))

# Distribution functions
for (nu in c(1, 2, 7, 7.3, 19, 99)) {
    tell(paste("t", nu), qt(0.975, nu), qt(1 - 0.025 / 9, nu), pt(-2.3, nu), pt(-40, nu), pt(2.1, nu, ncp = 3), pt(2.1, nu, ncp = 0.4))
}
