
// The page over all jobs: jobs that should have run since the page was written.
const written = document.querySelector("[data-written]");
if (written) {
  const hours = (Date.now() - new Date(written.dateTime)) / 3600000;
  if (hours >= 1) written.textContent += `, ${hours < 48 ? Math.floor(hours) + " h" : Math.floor(hours / 24) + " days"} ago`;
  const late = Array.from(document.querySelectorAll("[data-finished]")).filter((job) => {
    const past = (Date.now() - new Date(job.dataset.finished)) / 3600000;
    return past > 24 * Number(job.dataset.step) + 6;
  });
  const notice = document.getElementById("overdue");
  if (late.length) {
    notice.textContent = `Overdue: ${late.map((job) => job.dataset.job).join(", ")}. No night has ended in the usual time. Was the machine off, or cron?`;
    notice.hidden = false;
  }
}
