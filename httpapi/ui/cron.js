// Schedules in words: 0 7 * * MON-FRI is "07:00, Mon–Fri". What has no short form stays as it is.

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const named = {'@hourly': 'every hour', '@daily': '00:00 every day', '@midnight': '00:00 every day', '@weekly': '00:00, Sun', '@monthly': '00:00 on the 1st', '@yearly': '00:00 on 1 January', '@annually': '00:00 on 1 January'};
const months = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const two = (n) => String(n).padStart(2, '0');

function dayOf(text) {
  const i = days.findIndex((d) => d.toUpperCase() === text.toUpperCase());
  return i >= 0 ? days[i] : days[Number(text) % 7];
}

function weekdays(field) {
  return field.split(',').map((part) => part.split('-').map(dayOf).join('–')).join(', ');
}

// inWords is a schedule for people.
export function inWords(s) {
  if (s.every) return `every ${s.every}`;
  const text = s.cron || '';
  if (named[text]) return named[text];
  const fields = text.split(/\s+/);
  if (fields.length === 6 && fields[0] === '0') fields.shift();
  if (fields.length !== 5 || fields.some((f) => !/^(\*|\*\/\d+|[\w,-]+)$/.test(f))) return text;
  const [minute, hour, day, month, weekday] = fields;
  const number = /^\d+$/;
  let time = '';
  if (/^\*\/\d+$/.test(minute) && hour === '*') time = `every ${minute.slice(2)} minutes`;
  else if (minute === '*' && hour === '*') time = 'every minute';
  else if (number.test(minute) && hour === '*') time = `${two(minute)} minutes past every hour`;
  else if (number.test(minute) && /^\*\/\d+$/.test(hour)) time = `every ${hour.slice(2)} hours, at ${two(minute)} past`;
  else if (number.test(minute) && /^[\d,]+$/.test(hour)) time = hour.split(',').map((h) => `${two(h)}:${two(minute)}`).join(', ');
  else return text;
  if (day === '*' && month === '*') return weekday === '*' ? time + (/^every|past/.test(time) ? '' : ' every day') : `${time}, ${weekdays(weekday)}`;
  if (weekday === '*' && number.test(day)) return `${time} on ${month === '*' ? `day ${day} of every month` : number.test(month) ? `${day} ${months[month - 1]}` : text}`;
  return text;
}
